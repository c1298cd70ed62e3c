"""Payment recovery: a host application with one workflow, a gateway it cannot trust, and a demo."""
