"""Demo scenes, and checks of data sets before a run."""
