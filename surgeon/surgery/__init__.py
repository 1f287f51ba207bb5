"""Recipe → plan → artifact, and back."""

from surgeon.surgery.operate import operate
from surgeon.surgery.plan import Edit, Plan, make_plan
from surgeon.surgery.recipe import Recipe, load_recipe
from surgeon.surgery.record import Record, read_record
from surgeon.surgery.restore import restore

__all__ = [
    "Edit",
    "Plan",
    "Recipe",
    "Record",
    "load_recipe",
    "make_plan",
    "operate",
    "read_record",
    "restore",
]
