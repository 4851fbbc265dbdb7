from tests.server.chat.conftest import ada, app, bob

__all__ = ["ada", "app", "bob"]
