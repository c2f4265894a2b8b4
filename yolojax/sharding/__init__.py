"""Several devices and processes: the mesh, functions of single images without communication, jobs of processes."""
