"""The only room that knows Flask: requests, the cookie, decorators, the command line."""
