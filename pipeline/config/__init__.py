"""The configuration: one YAML file, checked when it is read."""
