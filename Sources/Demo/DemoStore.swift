import Core
import TesseraCLI

/// The second half of the demo: all fine-tunes in a store of two bits per parameter, and each of them taken out again.
struct DemoStore: Sendable {
    let digits: String
    /// For recipes and what is rebuilt.
    let directory: String
    let store: String

    func run() async throws {
        let tunes = DigitsFamily.tunes
        let recipe = """
            quantize: {budget: 2.25 bits}
            base_model: \(digits)/base
            models:
            \(tunes.map { "- model: \(digits)/\($0)" }.joined(separator: "\n"))

            """
        let path = "\(directory)/store.yml"
        try writeFile(path, Array(recipe.utf8))
        let seconds = try await Demo.run(recipe, at: path, in: directory, output: store)
        print(
            "\(Terminal.styled("✓", .green)) eight fine-tunes in one store of 2.25 bits per parameter, in place of 32, made in "
                + Quantity.seconds(seconds))
        let known = DigitsFamily.published(digits: digits)
        var rows: [(name: String, shares: [Double?])] = []
        for tune in tunes {
            let rebuilt = "\(directory)/rebuilt"
            _ = try await Demo.run(
                "merge_method: passthrough\nmodels: [{model: \(store)#\(tune)}]\n", at: "\(directory)/rebuild.yml", in: directory,
                output: rebuilt)
            guard let found = DigitsFamily.accuracy(digits: digits, of: rebuilt, on: [tune]) else { return }
            rows.append((tune, [known[tune]?[tune], found[tune]]))
        }
        print("Test images of its own kind that each reads correctly:")
        for line in DigitsFamily.table(["FINE-TUNE", "FROM THE STORE"], rows: rows) { print(line) }
    }
}
