"""Names of `rov.media` under which other rooms know them."""

from rov.media.files import IMAGES as IMAGES
from rov.media.files import VIDEOS as VIDEOS
from rov.media.files import Image as Image
from rov.media.files import TimedFrame as TimedFrame
from rov.media.files import images_in as images_in
from rov.media.files import must_be_file as must_be_file
from rov.media.films import Video as Video
from rov.media.pictures import read_image as read_image
