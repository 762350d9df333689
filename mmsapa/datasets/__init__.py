"""Demo scenes, NYU Depth v2, and checks of data sets before a run."""
