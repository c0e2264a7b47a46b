"""The data doctor: what is wrong with data, or good to know of it, before a training; see `doctor.check.check`."""

from recsys_embed.doctor.check import Examination, check, examine
from recsys_embed.doctor.codes import CODES, Finding

__all__ = ["CODES", "Examination", "Finding", "check", "examine"]
