"""The node's services and actions."""
