from __future__ import annotations

import os
import sys
import time

from model_hosts.sdk import serve

# What the host does before its hello, for tests of its start.
behaviour = os.environ.get("VISEME_ECHO", "")
if behaviour == "crash":
    sys.exit("the model file is not a model")
if behaviour == "silent":
    time.sleep(60)
serve("doubles.hosts.echo.service:EchoHost")
