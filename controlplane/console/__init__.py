"""The operators' console under /ops/: pages that read `queries` and call one function per action."""
