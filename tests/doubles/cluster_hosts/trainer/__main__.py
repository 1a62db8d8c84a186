from __future__ import annotations

from model_hosts.sdk import serve

serve("tests.doubles.cluster_hosts.trainer.service:TrainerHost")
