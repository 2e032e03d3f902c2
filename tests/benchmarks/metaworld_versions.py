"""Whether two versions of Meta-World and MuJoCo are the same benchmark, task by task.

    python tests/benchmarks/metaworld_versions.py record here.npz
    OTHER/bin/python tests/benchmarks/metaworld_versions.py record there.npz --actions here.npz
    python tests/benchmarks/metaworld_versions.py compare here.npz there.npz

``record`` lets the scripted policies play episodes with set seeds, set up as ``envs.metaworld`` does it. With
``--actions`` the actions of another recording are played again, so that both differ in the simulation alone, and the
scripted policy of its own version plays beside it, for its success rate. Nothing of the project is imported: the other
environment has Meta-World alone.
"""

import argparse
import hashlib
import importlib.metadata
from typing import Any

import numpy as np

STEPS, SEEDS = 150, tuple(range(1000, 1010))


def made(task: str) -> Any:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    sim = ALL_V3_ENVIRONMENTS[task]()
    sim._partially_observable = False
    del sim.sawyer_observation_space
    sim._set_task_called, sim._freeze_rand_vec, sim.seeded_rand_vec = True, False, True
    sim.max_path_length = 10**9
    return sim


def episode(sim: Any, policy: Any, seed: int, actions: np.ndarray | None) -> dict[str, np.ndarray]:
    """Observations (T + 1, 39), rewards and successes (T,), and the actions (T, 4)."""
    import mujoco

    mujoco.mj_resetData(sim.model, sim.data)
    sim.seed(seed)
    seen, _ = sim.reset()
    found: dict[str, list[Any]] = {"seen": [seen], "reward": [], "success": [], "action": []}
    for step in range(STEPS):
        action = np.clip(policy.get_action(seen), -1, 1) if actions is None else actions[step]
        seen, reward, _, _, facts = sim.step(np.asarray(action, np.float32))
        for name, value in zip(found, (seen, reward, bool(facts["success"]), action), strict=True):
            found[name].append(value)
    return {name: np.asarray(rows) for name, rows in found.items()}


def record(out: str, others: str) -> None:
    from metaworld.policies import ENV_POLICY_MAP

    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("metaworld", "mujoco")]
    given, kept = np.load(others) if others else None, dict[str, Any]()
    for task in sorted(ENV_POLICY_MAP):
        try:
            sim, policy = made(task), ENV_POLICY_MAP[task]()
            for seed in SEEDS:
                key = f"{task}/{seed}"
                own = episode(sim, policy, seed, None)
                actions = own["action"] if given is None else given[f"{key}/action"]
                played = episode(sim, policy, seed, actions)  # the second of its seed here as there
                kept |= {f"{key}/{name}": rows for name, rows in played.items()} | {f"{key}/own": own["success"].any()}
        except Exception as error:
            print(f"{task}: {type(error).__name__}: {error}", flush=True)
    np.savez_compressed(out, versions=np.array(versions), **kept)
    print(f"{', '.join(versions)}: {len(kept) // (len(SEEDS) * 5)} tasks in {out}")


def compare(left: str, right: str) -> None:
    a, b = np.load(left), np.load(right)
    print(f"{' '.join(a['versions'])} against {' '.join(b['versions'])}, {len(SEEDS)} episodes of {STEPS} steps a task")
    print(f"{'task':28} {'start':>9} {'10 steps':>9} {'the rest':>9} {'reward':>8} same success  own success")
    alike = 0
    tasks = sorted({key.split("/")[0] for key in a.files if "/" in key})
    for task in tasks:
        if f"{task}/{SEEDS[0]}/seen" not in b.files:
            print(f"{task:28} is not there")
            continue
        columns = ("seen", "reward", "success", "own")
        of = [{name: (a[f"{task}/{s}/{name}"], b[f"{task}/{s}/{name}"]) for name in columns} for s in SEEDS]
        gaps = [np.abs(one["seen"][0] - one["seen"][1]).max(axis=1) for one in of]
        start, early, late = (
            max(float(gap[part].max()) for gap in gaps) for part in (slice(1), slice(11), slice(None))
        )
        reward = max(float(np.abs(one["reward"][0] - one["reward"][1]).max()) for one in of)
        same = sum(bool(one["success"][0].any() == one["success"][1].any()) for one in of)
        own = [sum(bool(one["own"][side]) for one in of) for side in (0, 1)]
        digests = [
            hashlib.sha256(b"".join(one["seen"][side].tobytes() for one in of)).hexdigest()[:8] for side in (0, 1)
        ]
        alike += digests[0] == digests[1]
        equal = "equal" if digests[0] == digests[1] else f"{digests[0]} {digests[1]}"
        print(f"{task:28} {start:9.1e} {early:9.1e} {late:9.1e} {reward:8.1e} {same:4}/{len(SEEDS)}      "
              f"{own[0]:2} and {own[1]:2}   {equal}")  # fmt: skip
    print(f"{alike} of {len(tasks)} tasks are equal bit for bit")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("record", "compare"))
    parser.add_argument("files", nargs="+")
    parser.add_argument("--actions", default="", help="a recording whose actions are played again")
    args = parser.parse_args()
    if args.do == "record":
        record(args.files[0], args.actions)
    else:
        compare(*args.files)
