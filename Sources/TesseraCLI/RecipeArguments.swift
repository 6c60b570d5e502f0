import ArgumentParser
import Core
import Glibc
import Recipes

/// The recipe that a command is about, and what the command line changes in it.
struct RecipeArguments: ParsableArguments {
    @Argument(help: "The recipe (a YAML file); - reads it from stdin.", completion: .recipes)
    var recipe: String

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp(
            "Override a value of the recipe: parameters.lambda=0.3, models.0.parameters.weight=0.5; repeatable.",
            valueName: "key=value"))
    var settings: [String] = []

    func read() throws -> RecipeText { try RecipeText(path: recipe, settings: settings) }
}

extension CompletionKind {
    static let recipes = CompletionKind.file(extensions: ["yml", "yaml"])
}

/// A recipe as a job is to have it.
struct RecipeText {
    /// The name that messages use.
    let name: String
    let text: String
    /// Where the lines of a text with settings come from.
    let origins: LineOrigins?

    private static let byteLimit = 1 << 20

    /// - Parameters:
    ///   - path: a file, or `-` for stdin.
    ///   - settings: values in the place of the recipe's own, as `--set` takes them.
    /// - Throws: what reading throws; `badData` for what is no text, `usage` for settings that do not fit.
    init(path: String, settings: [String] = []) throws {
        let overrides = try settings.map { try RecipeOverride($0) }
        let isInput = path == "-" || path == "/dev/stdin"
        name = isInput ? Self.inputName : path
        let bytes = isInput ? try Self.input() : try Self.contents(of: path)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw TesseraError(.badData, "is not UTF-8 text", file: name)
        }
        (self.text, origins) = try RecipeOverride.apply(overrides, to: text, file: name)
    }

    private static let inputName = "<stdin>"

    private static func contents(of path: String) throws(TesseraError) -> [UInt8] {
        do throws(TesseraError) {
            return try LocalFiles().read(path, maxBytes: byteLimit)
        } catch {
            var named = error
            named.advice = error.advice ?? advice(for: path)
            throw named
        }
    }

    /// What may be meant by a path that is no recipe.
    private static func advice(for path: String) -> String {
        func recipes(in directory: String) -> [String] {
            ((try? LocalFiles().list(directory)) ?? []).filter { $0.hasSuffix(".yml") || $0.hasSuffix(".yaml") }
        }
        let files = LocalFiles(), parent = FilePath.parent(of: path)
        if (try? files.status(of: path))?.kind == .directory {
            return recipes(in: path).first.map { "did you mean '\(FilePath.join(path, $0))'?" } ?? "name a YAML file"
        }
        let guess = FilePath.components(of: path).last.flatMap { Suggestion.guess(for: $0, in: recipes(in: parent)) }
        return guess ?? "name a YAML file, or - to read the recipe from stdin"
    }

    private static func input() throws(TesseraError) -> [UInt8] {
        var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(STDIN_FILENO, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw .system(errno, "read", inputName) }
            guard count > 0 else { return bytes }
            bytes += buffer[..<count]
            guard bytes.count <= byteLimit else {
                throw TesseraError(
                    .badData, "is longer than \(byteLimit) bytes", file: inputName, advice: "check that this is a recipe")
            }
        }
    }
}
