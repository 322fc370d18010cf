"""What a run will do: scenes, chips, shards and their content keys; stored, compared, drawn."""
