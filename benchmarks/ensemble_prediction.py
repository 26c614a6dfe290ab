"""The ensemble's prediction for one 256 x 256 image: the papers' way against ours, at the papers' sizes.

    python benchmarks/ensemble_prediction.py [--repeats 5] [--json]

What is compared: class labels, mean probabilities and Jensen-Shannon uncertainty of ten MLPs over 34 classes, from the decoder
blocks 5, 6, 7, 8 and 12 of the 256-channel network (1024 channels at 32 x 32, 512 at 32 x 32 twice, 512 at 64 x 64 and 256 at
128 x 128) at three timesteps: 8448 features a pixel. Feature maps and weights are random; the work does not depend on them.

``peer``      upsample every map, concatenate, call one MLP after another, `torch.mode` (``tests/peer_ensemble.py``)
``ours``      `mdm_studio.engine.heads.predict_window`
``ours-blas`` the same with oneDNN switched off, so that both sides multiply matrices with the very same BLAS
``idle``      loads maps and weights and predicts nothing: the baseline of the memory figures

Each run is a process of its own, on one thread, in turn. CPU-seconds are user plus system time of the prediction alone, the
first call in its process (nothing is warmed up). Peak memory is the process's largest resident set; *added* memory is that less
the idle process's, so features, weights, Python and PyTorch do not count on either side.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZE, CLASSES, MEMBERS, TIMESTEPS = 256, 34, 10, 3
BLOCKS = ((1024, 32), (512, 32), (512, 32), (512, 64), (256, 128))  # channels, height and width of blocks 5, 6, 7, 8, 12
VARIANTS = ("idle", "peer", "ours", "ours-blas")
MIB = 1 << 20


def measure(variant: str, labels: Path) -> dict[str, float]:
    """Run one variant in this process; class labels go to a file."""
    sys.path.insert(0, str(ROOT))
    import numpy as np
    import torch

    from mdm_studio.engine.heads import predict_window
    from mdm_studio.nn.pixel_mlp import FeatureMap, PixelMLPEnsemble, hidden_sizes
    from tests.peer_ensemble import PeerMLP, copy_member, peer_features, peer_predict

    torch.set_num_threads(1)
    torch.manual_seed(0)
    maps = [torch.randn(channels, side, side) for _ in range(TIMESTEPS) for channels, side in BLOCKS]
    dims = sum(len(m) for m in maps)
    ensemble = PixelMLPEnsemble(dims if variant != "peer" else 1, CLASSES, members=MEMBERS, hidden=hidden_sizes(CLASSES)).eval()
    members = []
    for place in range(MEMBERS):
        member = PeerMLP(dims, CLASSES).eval()
        if variant == "peer":
            members.append(member)
        else:
            copy_member(member, ensemble, place)
        del member
    torch.backends.mkldnn.set_flags(variant != "ours-blas")

    before = _cpu_seconds()
    if variant == "peer":
        result = peer_predict(members, peer_features(maps, (SIZE, SIZE))).labels.numpy()
    elif variant != "idle":
        ours = [FeatureMap(m, SIZE // m.shape[1], (0, 0), tuple(m.shape[1:])) for m in maps]
        result = predict_window(ensemble, ours, slice(0, SIZE), slice(0, SIZE)).labels
    else:
        result = np.zeros((SIZE, SIZE), np.int64)
    seconds = _cpu_seconds() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    np.save(labels, result)
    return {"cpu_seconds": seconds, "peak_bytes": peak}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def compare(repeats: int) -> dict[str, object]:
    """All variants in turn, `repeats` times; medians and ratios."""
    import numpy as np

    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for variant in VARIANTS:
                command = [sys.executable, __file__, "--variant", variant, "--labels", f"{folder}/{variant}.npy"]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                runs[variant].append(json.loads(done.stdout))
        labels = {variant: np.load(f"{folder}/{variant}.npy") for variant in VARIANTS}
    median = {v: {key: statistics.median(run[key] for run in runs[v]) for key in runs[v][0]} for v in VARIANTS}
    idle = median["idle"]["peak_bytes"]
    report: dict[str, object] = {"repeats": repeats, "idle_peak_mib": idle / MIB}
    for variant in VARIANTS[1:]:
        seconds, peak = median[variant]["cpu_seconds"], median[variant]["peak_bytes"]
        report[variant] = {
            "cpu_seconds": seconds,
            "cpu_seconds_range": [f(run["cpu_seconds"] for run in runs[variant]) for f in (min, max)],
            "peak_mib": peak / MIB,
            "added_mib": (peak - idle) / MIB,
            "times_less_cpu": median["peer"]["cpu_seconds"] / seconds,
            "times_less_added_memory": (median["peer"]["peak_bytes"] - idle) / (peak - idle),
            "times_less_peak_memory": median["peer"]["peak_bytes"] / peak,
            "same_labels": float((labels[variant] == labels["peer"]).mean()),
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--labels", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(measure(options.variant, options.labels)))
        return
    report = compare(options.repeats)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(f"one {SIZE} x {SIZE} image, {MEMBERS} MLPs, {CLASSES} classes; median of {options.repeats}, one thread")
    print(f"idle process with maps and weights: {report['idle_peak_mib']:.0f} MiB")
    for variant in VARIANTS[1:]:
        r = report[variant]
        assert isinstance(r, dict)
        low, high = r["cpu_seconds_range"]
        print(
            f"{variant:10s} {r['cpu_seconds']:6.2f} CPU-s ({low:.2f}-{high:.2f}), {r['times_less_cpu']:4.1f}x less"
            f" | added {r['added_mib']:5.0f} MiB, {r['times_less_added_memory']:4.1f}x less"
            f" | peak {r['peak_mib']:5.0f} MiB, {r['times_less_peak_memory']:3.1f}x less"
            f" | same labels {100 * r['same_labels']:.3f} %"
        )


if __name__ == "__main__":
    main()
