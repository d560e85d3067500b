"""The routes: `entry` for people coming and going, `desk` for their work, `machine` for programs."""
