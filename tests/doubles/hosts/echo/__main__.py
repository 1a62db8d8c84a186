from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from model_hosts.sdk import serve

# What the host does before its hello, for tests of its start.
wish = Path(os.environ["VISEME_HOME"], "echo.wish")
behaviour = wish.read_text(encoding="ascii") if wish.exists() else ""
if behaviour == "crash":
    sys.exit("the model file is not a model")
if behaviour == "babble":
    os.write(int(sys.argv[sys.argv.index("--hello-fd") + 1]), b"good morning\n")
if behaviour == "silent":
    time.sleep(60)
serve("doubles.hosts.echo.service:EchoHost")
