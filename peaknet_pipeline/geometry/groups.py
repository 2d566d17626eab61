"""Groups of panels, as CrystFEL's detector hierarchy: each a name and its members, which are panels or groups."""

from collections.abc import Sequence

from peaknet_pipeline.types import Geometry, Panel

Groups = tuple[tuple[str, tuple[str, ...]], ...]


def groups_of(geometry: Geometry) -> Groups:
    """Return a geometry's groups; where none were given, those that its panels name and ``all``."""
    return geometry.groups or groups_of_panels(geometry.panels)


def groups_of_panels(panels: Sequence[Panel]) -> Groups:
    """Return one group for each name that panels bear, and ``all`` of them where every panel is in one."""
    names = list(dict.fromkeys(p.group for p in panels if p.group))
    groups = [(name, tuple(p.name for p in panels if p.group == name)) for name in names]
    if names and "all" not in names and all(p.group for p in panels):
        groups.append(("all", tuple(names)))
    return tuple(groups)
