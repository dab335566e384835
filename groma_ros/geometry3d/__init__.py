"""From boxes and depth to oriented boxes and approach poses."""
