"""How good weights are: measured on images and scenes, as tables and pages."""
