"""Event-camera data: recordings in every format, as frames."""
