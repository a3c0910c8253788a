"""Viewers: a self-contained HTML player, GIF and MP4."""

from plugins.motion.viewers.clip import Clip, sides
from plugins.motion.viewers.gif import write_gif
from plugins.motion.viewers.html import player_page, write_html
from plugins.motion.viewers.video import write_mp4

__all__ = ["Clip", "player_page", "sides", "write_gif", "write_html", "write_mp4"]
