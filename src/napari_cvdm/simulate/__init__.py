"""Image pairs from a description of the microscope: phase objects to defocus pairs, structures to widefield."""
