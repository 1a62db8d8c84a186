from __future__ import annotations

from model_hosts.sdk import serve

serve("doubles.turn_hosts.service:VoiceHost")
