"""The import rule that import-linter does not bring: across packages only faces are imported."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class FacesContract(Contract):
    """A module of a package is imported from inside that package alone; everybody else imports the package's face.

    The face is what the package's ``__init__.pyi`` lists. Modules that lie directly in a package of `open` are faces
    themselves.
    """

    open = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """See `Contract.check`."""
        ours = sorted(module for module in graph.modules if module.startswith("difffusr."))
        packages = {module for module in ours if graph.find_children(module)}
        found = []
        for importer in ours:
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                package = imported.rpartition(".")[0]
                if not imported.startswith("difffusr.") or imported in packages or package in self.open:
                    continue
                if importer != package and not importer.startswith(package + "."):
                    found.append((importer, imported))
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """See `Contract.render_broken_contract`."""
        for importer, imported in check.metadata["found"]:
            package, _, module = imported.rpartition(".")
            stub = f"{package.removeprefix('difffusr.').replace('.', '/')}/__init__.pyi"
            output.print_error(f"{importer} imports {imported}: import the name from {package},")
            output.print_error(f"    and list it in {stub} (from .{module} import …)")
