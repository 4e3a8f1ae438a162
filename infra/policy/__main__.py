"""The policy pack as a folder, which is what `pulumi policy publish` uploads: this file and the packages beside it."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("infra.policy.pack", run_name="__main__")
