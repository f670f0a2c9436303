"""What the stages do: each reads finished artefacts and fills one folder."""
