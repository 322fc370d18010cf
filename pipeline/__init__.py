"""The distributed pipeline: STAC → plan → read → super-resolve → stage → assemble → publish."""
