"""Tests of the image and of the containers of `deploy/`, as far as they go without a container engine."""
