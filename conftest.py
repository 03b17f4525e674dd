"""What only a checkout needs: the plugin's own tests run pytest inside pytest."""

pytest_plugins = ["pytester"]
