"""Models for other programs: packages of the BioImage Model Zoo (bioimage.io), format 0.5. What they need is the extra ``bmz``."""
