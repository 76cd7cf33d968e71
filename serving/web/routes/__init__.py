"""The addresses of the dashboard: a module for each page, whose function adds its routes."""
