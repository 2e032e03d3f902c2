"""Meta-World's fifty tasks: their tiers of difficulty and what the robot is told to do in each.

Tiers and sentences are those of LeRobot's ``envs/metaworld_config.json`` (Apache-2.0), so that scores can be compared.
Two tasks share a sentence: push and push-back differ only in where the goal is.
"""

from __future__ import annotations

from vla.contracts.abilities import Published

INSTRUCTIONS = {
    "easy": {
        "button-press-v3": "Press a button",
        "button-press-topdown-v3": "Press a button from the top",
        "button-press-topdown-wall-v3": "Bypass a wall and press a button from the top",
        "button-press-wall-v3": "Bypass a wall and press a button",
        "coffee-button-v3": "Push a button on the coffee machine",
        "dial-turn-v3": "Rotate a dial 180 degrees",
        "door-close-v3": "Close a door with a revolving joint",
        "door-lock-v3": "Lock the door by rotating the lock clockwise",
        "door-open-v3": "Open a door with a revolving joint",
        "door-unlock-v3": "Unlock the door by rotating the lock counter-clockwise",
        "drawer-close-v3": "Push and close a drawer",
        "drawer-open-v3": "Open a drawer",
        "faucet-close-v3": "Rotate the faucet clockwise",
        "faucet-open-v3": "Rotate the faucet counter-clockwise",
        "handle-press-v3": "Press a handle down",
        "handle-press-side-v3": "Press a handle down sideways",
        "handle-pull-v3": "Pull a handle up",
        "handle-pull-side-v3": "Pull a handle up sideways",
        "lever-pull-v3": "Pull a lever down 90 degrees",
        "plate-slide-v3": "Slide a plate into a cabinet",
        "plate-slide-back-v3": "Get a plate from the cabinet",
        "plate-slide-back-side-v3": "Get a plate from the cabinet sideways",
        "plate-slide-side-v3": "Slide a plate into a cabinet sideways",
        "reach-v3": "Reach a goal position",
        "reach-wall-v3": "Bypass a wall and reach a goal",
        "window-close-v3": "Push and close a window",
        "window-open-v3": "Push and open a window",
        "peg-unplug-side-v3": "Unplug a peg sideways",
    },
    "medium": {
        "basketball-v3": "Dunk the basketball into the basket",
        "bin-picking-v3": "Grasp the puck from one bin and place it into another bin",
        "box-close-v3": "Grasp the cover and close the box with it",
        "coffee-pull-v3": "Pull a mug from a coffee machine",
        "coffee-push-v3": "Push a mug under a coffee machine",
        "hammer-v3": "Hammer a screw on the wall",
        "peg-insert-side-v3": "Insert a peg sideways",
        "push-wall-v3": "Bypass a wall and push a puck to a goal",
        "soccer-v3": "Kick a soccer into the goal",
        "sweep-v3": "Sweep a puck off the table",
        "sweep-into-v3": "Sweep a puck into a hole",
    },
    "hard": {
        "assembly-v3": "Pick up a nut and place it onto a peg",
        "hand-insert-v3": "Insert the gripper into a hole",
        "pick-out-of-hole-v3": "Pick up a puck from a hole",
        "pick-place-v3": "Pick and place a puck to a goal",
        "push-v3": "Push the puck to a goal",
        "push-back-v3": "Push the puck to a goal",
    },
    "very_hard": {
        "shelf-place-v3": "Pick and place a puck onto a shelf",
        "disassemble-v3": "Pick a nut out of a peg",
        "stick-pull-v3": "Grasp a stick and pull a box with the stick",
        "stick-push-v3": "Grasp a stick and push a box using the stick",
        "pick-place-wall-v3": "Pick a puck, bypass a wall and place the puck",
    },
}
TIERS = tuple(INSTRUCTIONS)
TASKS = tuple(task for tasks in INSTRUCTIONS.values() for task in tasks)


def tier_of(task: str) -> str:
    """The tier that a task belongs to: ``easy``, ``medium``, ``hard`` or ``very_hard``."""
    return next(tier for tier, tasks in INSTRUCTIONS.items() if task in tasks)


def instruction_of(task: str) -> str:
    """The English sentence of a task."""
    return INSTRUCTIONS[tier_of(task)][task]


# Success in per cent after 50 scripted demonstrations of each task, as the papers read in November 2026.
_SMOLVLA = "SmolVLA, arXiv 2506.01844"
PUBLISHED = (
    Published("Diffusion Policy", "", (23.1, 10.7, 1.9, 6.1), 10.5, _SMOLVLA),
    Published("TinyVLA", "1.3B", (77.6, 21.5, 11.4, 15.8), 31.6, _SMOLVLA),
    Published("pi0", "3.5B", (71.8, 48.2, 41.7, 30.0), 47.9, _SMOLVLA),
    Published("SmolVLA", "0.45B", (82.5, 41.8, 45.0, 60.0), 57.3, _SMOLVLA),
    Published("SmolVLA", "2.25B", (87.1, 51.8, 70.0, 64.0), 68.2, _SMOLVLA),
    Published("ProgVLA", "0.1B", (84.9, 72.7, 77.0, 79.6), 78.5, "its paper"),
    Published("Evo-1", "0.77B", (89.2, 76.8, 77.2, 79.2), 80.6, "its paper; 400 steps"),
    Published("Evo-Depth", "0.9B", (83.1, 84.7, 87.3, 82.4), 84.4, "its paper"),
    Published("pi0 + PPO (Flow-Noise)", "3.5B", (91.1, 81.8, 78.3, 92.0), 85.8, "its paper"),
    Published("LA4VLA", "1B", (88.9, 94.5, 66.7, 100.0), 87.5, "its paper"),
    Published("FabriVLA", "0.89B", (95.0, 88.2, 86.7, 90.0), 90.0, "arXiv 2607.08575; 400 steps"),
)
