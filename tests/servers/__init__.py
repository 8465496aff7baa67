"""Real servers, one for each test session, on free ports or sockets, stopped at the end."""
