import ArgumentParser
import Core
import FoundationEssentials
import TesseraCLI

/// `tessera manual DIR` writes the manual pages, for `Deploy/install` and packages.
struct ManualCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "manual", abstract: "Write the manual pages of all commands into a directory.", shouldDisplay: false)

    @Argument(help: "The directory.", completion: .directory)
    var directory: String

    func run() throws {
        guard let root = CommandOptions.of(TesseraCommand.self) else {
            throw TesseraError(.internal, "the description of the commands cannot be read")
        }
        for page in ManualPage.all(of: root) {
            let path = FilePath.join(directory, page.fileName)
            do {
                try Data(page.text.utf8).write(to: URL(filePath: path))
            } catch {
                throw TesseraError(
                    .cannotCreate, "cannot write the page", file: path,
                    advice: "is '\(directory)' a directory that you may write to?")
            }
            print(page.fileName)
        }
    }
}
