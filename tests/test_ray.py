"""Studies on a Ray cluster: the same results as on one machine, also when a node is lost."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from scenes import write_data

from boxloss.study import Local, Ray, StudyConfig, compare
from boxloss.study.folder import SUMMARY
from boxloss.study.trial import LOG, RESULT
from boxloss.training import Network, TrainConfig
from boxloss.training.checkpoint import NAME

ray = pytest.importorskip("ray")
ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:::ray")]


@pytest.fixture
def cluster(monkeypatch):
    """Three nodes on this machine: the first only watches, each of the others has a place for one trial."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    store = {"object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    made.workers = [made.add_node(num_cpus=1, **store) for _ in range(2)]
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_node_is_lost(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("BOXLOSS_CACHE", str(tmp_path / "cache"))
    data = write_data(tmp_path / "data")
    network = Network(scales=2, width=4, anchors=1)
    base = TrainConfig(data=str(data), network=network, size=64, epochs=150, batch=4, evaluate_every=0)
    config = StudyConfig(["ciou", "darknet"], seeds=2, train=base, replicates=50)

    lost = []

    def lose_a_node():
        """When both have a trial with a checkpoint and without a result."""
        while len(list((tmp_path / "ray").rglob(NAME))) < 2:
            time.sleep(0.01)
        lost.append(len(list((tmp_path / "ray").rglob(RESULT))))
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    summary = compare(config, tmp_path / "ray", Ray(cluster.address))
    killer.join()
    assert lost == [0]
    assert summary["failed"] == {}
    logs = [path.read_text() for path in (tmp_path / "ray").rglob(LOG)]
    assert sum("going on after step" in log for log in logs) == 1
    compare(config, tmp_path / "local", Local(2))
    assert (tmp_path / "ray" / SUMMARY).read_bytes() == (tmp_path / "local" / SUMMARY).read_bytes()


def test_a_cluster_of_its_own(tmp_path, monkeypatch):
    """Without an address; a trial that fails is reported."""
    monkeypatch.setenv("BOXLOSS_CACHE", str(tmp_path / "cache"))
    data = write_data(tmp_path / "data")
    network = Network(scales=2, width=4, anchors=1)
    base = TrainConfig(data=str(data), network=network, size=64, epochs=1, batch=4, evaluate_every=0)
    config = StudyConfig(["ciou"], seeds=1, train=base, replicates=20)
    summary = compare(config, tmp_path / "s", Ray())
    assert summary["failed"] == {}
    assert not ray.is_initialized()
    found = json.loads(next((tmp_path / "s").rglob(RESULT)).read_text())
    assert found["figures"]["AP"] is not None
