"""The images that a ground truth names, for the gallery of a report."""

from __future__ import annotations

from pathlib import Path

from yolojax.data.image_places import ImageFinder, find_image_folder
from yolojax.data.images import read_header, read_image, resolve_size
from yolojax.data.summary import Notebook
from yolojax.errors import DataError
from yolojax.eval.inputs import GroundTruth
from yolojax.eval.report.gallery import Photo


def photos_of(truth: GroundTruth, file: Path, folder: Path | None) -> Photo:
    """Reads the images that a COCO JSON file names, from ``folder`` or else from where such files keep them.

    An image turned by EXIF is turned upright where that gives the size that the file states.
    """
    place = find_image_folder(file, None, folder, list(truth.file_names))
    finder = ImageFinder(place, folder or place, Notebook(skip_bad=False))
    index = {image_id: k for k, image_id in enumerate(truth.image_ids)}

    def photo(image_id: object):
        k = index[image_id]
        path = finder.find(truth.file_names[k], str(file))
        if not path.is_file():
            raise DataError(f"{path} is not there; give --images FOLDER")
        height, width = (int(v) for v in truth.sizes[k])
        stated = (height, width) if height > 1 and width > 1 else None
        _, upright = resolve_size(read_header(path), stated, str(file), path)
        return read_image(path, upright=upright)

    return photo
