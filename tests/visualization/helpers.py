"""What a figure holds."""

import io


def bytes_of(figure):
    file = io.BytesIO()
    figure.savefig(file, format='png')
    return file.getvalue()


def texts(figure):
    legends = [text.get_text() for x in figure.legends for text in x.texts]
    return [text.get_text() for text in figure.texts] + legends
