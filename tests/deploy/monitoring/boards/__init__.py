"""What is on each dashboard: one function a dashboard, one call a panel."""
