"""Several devices and processes: one mesh, images that stay on their device, waiting for one another."""
