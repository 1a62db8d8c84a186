from __future__ import annotations

from model_hosts.sdk import serve

serve("doubles.mixed_hosts.service:TrainerHost")
