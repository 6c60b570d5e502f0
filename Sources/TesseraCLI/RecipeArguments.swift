import ArgumentParser
import Core
import Glibc
import Recipes

/// The recipe that a command is about, and what the command line changes in it.
struct RecipeArguments: ParsableArguments {
    @Argument(help: "The recipe (a YAML file); - reads it from stdin.")
    var recipe: String

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp(
            "Put a value in the place of the recipe's: parameters.lambda=0.3, models.0.parameters.weight=0.5; repeatable.",
            valueName: "key=value"))
    var settings: [String] = []

    private static let byteLimit = 1 << 20

    private var isFromInput: Bool { recipe == "-" || recipe == "/dev/stdin" }

    /// The name that messages use.
    var name: String { isFromInput ? "<stdin>" : recipe }

    /// The recipe as the job is to have it.
    func text() throws -> String {
        let overrides = try settings.map { try RecipeOverride($0) }
        let bytes = isFromInput ? try Self.input() : try LocalFiles().read(recipe, maxBytes: Self.byteLimit)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw TesseraError(.badData, "is not UTF-8 text", file: name)
        }
        return try RecipeOverride.apply(overrides, to: text, file: name)
    }

    private static func input() throws(TesseraError) -> [UInt8] {
        var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(STDIN_FILENO, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw .system(errno, "read", "<stdin>") }
            guard count > 0 else { return bytes }
            bytes += buffer[..<count]
            guard bytes.count <= byteLimit else {
                throw TesseraError(
                    .badData, "is longer than \(byteLimit) bytes", file: "<stdin>", advice: "check that this is a recipe")
            }
        }
    }
}
