"""Coarser meshes for small pictures: a Panda has 180,000 triangles, a 64 x 64 picture 4,096 pixels."""

import copy

import mujoco
import numpy as np

SMALL = 700  # triangles up to which a mesh (fingers, for one) is left as it is
CELL = 0.05  # edge of the merging grid as a share of the mesh's longest side, ...
SMALLEST_CELL = 0.008  # m, ... but no finer than this


def coarse(model: mujoco.MjModel) -> mujoco.MjModel:
    """Copies a model for drawing: large meshes lose the triangles that collapse when near vertices are merged.

    Vertices in one cell of a grid become one of them; triangles keep their normals. Array sizes stay, only
    `mesh_facenum` shrinks, so that geoms refer to the same meshes. Not for physics.
    """
    result = copy.copy(model)
    for mesh in range(model.nmesh):
        count = model.mesh_facenum[mesh]
        if count <= SMALL:
            continue
        first = model.mesh_faceadr[mesh]
        vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
        faces, kept = merged(vertices, model.mesh_face[first : first + count])
        result.mesh_facenum[mesh] = len(kept)
        result.mesh_face[first : first + len(kept)] = faces
        for name in ("mesh_facenormal", "mesh_facetexcoord"):
            getattr(result, name)[first : first + len(kept)] = getattr(model, name)[first : first + count][kept]
    return result


def merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges the vertices [V, 3] of each grid cell; returns the remaining faces [K, 3] and their old numbers [K]."""
    cell = max(CELL * float(np.ptp(vertices, axis=0).max()), SMALLEST_CELL)
    grid = np.floor(vertices / cell).astype(np.int64)
    _, chosen, member = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    faces = chosen[member.ravel()][faces]
    corners = np.sort(faces, axis=1)
    whole = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2])
    _, first = np.unique(corners, axis=0, return_index=True)
    kept = np.sort(first[whole[first]])
    return faces[kept], kept
