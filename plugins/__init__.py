"""The built-in plugins, one package for each family. Each is discovered by its entry point, like anyone else's."""
