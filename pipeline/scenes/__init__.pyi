from .chip import read_chip as read_chip
from .files import opened as opened
from .item import Scene as Scene
from .item import describe as describe
from .search import find_scenes as find_scenes
from .windows import read_overview as read_overview
