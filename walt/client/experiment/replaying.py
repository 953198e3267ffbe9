"""A run is done again, here: with the same images, wherever they are called otherwise."""

from __future__ import annotations

from dataclasses import replace

from walt.client.errors import Failure
from walt.common.names import short_image_name

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from walt.client.experiment.model import Experiment


def without_program(experiment: Experiment) -> Experiment:
    """Return an experiment that a file tells whole. Raises Failure for one of a program."""
    if experiment.program:
        raise Failure(
            f"it was measured by the program {experiment.program}, which the archive has in"
            " scripts/: run that"
        )
    return experiment


def with_images(
    experiment: Experiment, manifest: Mapping[str, Any], own: Mapping[str, str],
    defaults: Collection[str] = (), *, exact: bool
) -> tuple[Experiment, list[str], list[str]]:
    """Return the experiment with the images of this platform, what is missing, and notes.

    `own` are the ids of the user's images by their names, `defaults` those of the platform's
    default images. The image that a role booted is looked
    for by its id; with `exact` nothing else will do, otherwise one with the same name does.
    """
    by_id = {image_id: name for name, image_id in sorted(own.items(), reverse=True)}
    roles, missing, notes = [], [], []
    for role in experiment.roles:
        booted = {
            manifest["nodes"][name]["image"] for name in manifest["roles"].get(role.name, ())
            if name in manifest["nodes"]
        }
        wanted = {manifest["images"].get(name) for name in booted} - {None}
        name = short_image_name(sorted(booted)[0]) if booted else role.image
        same = next((by_id[found] for found in sorted(wanted) if found in by_id), None)
        if own.get(role.image) in wanted or (
            role.image == "default" and wanted and wanted <= set(defaults)
        ):
            pass
        elif own.get(name) in wanted:
            role = replace(role, image=name)
        elif same is not None:
            role = replace(role, image=same)
            notes.append(f"{role.name}: {same}, the same image as {name}")
        elif not exact and (role.image == "default" or role.image in own):
            notes.append(f"{role.name}: {role.image} of this platform is another image")
        else:
            told = ", ".join(str(found)[:12] for found in sorted(wanted)) or "that nobody knows"
            missing.append(f"{role.name}: the image {name} (id {told})")
        roles.append(role)
    return replace(experiment, roles=tuple(roles)), missing, notes
