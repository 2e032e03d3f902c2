"""An agent behind a websocket: one process acts for many robots and simulators."""
