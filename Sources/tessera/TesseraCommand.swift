import ArgumentParser
import Core
import Demo
import Engine
import FoundationEssentials
import Glibc
import LinearAlgebra
import Recipes
import TesseraCLI

@main
struct TesseraCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tessera",
        abstract: "Merge large model checkpoints, on one machine or many.",
        discussion: """
            'tessera run recipe.yml OUT' merges on this machine. To use several machines, start a coordinator and workers, then \
            submit the recipe. 'tessera demo' shows everything in a few seconds.

            Every option can also be set by a variable, TESSERA_ and its name in capitals (TESSERA_COORDINATOR=head:7070), and \
            in a file, ~/.config/tessera/config.yml or --config FILE. The command line wins over variables, and these over the \
            file; 'tessera config' shows what is set, and where.
            """,
        version: tesseraVersion,
        subcommands: [
            RunCommand.self, PlanCommand.self, MethodsCommand.self, CoordinatorCommand.self, WorkerCommand.self,
            SubmitCommand.self, WaitCommand.self, StatusCommand.self, CancelCommand.self, VerifyCommand.self,
            InspectCommand.self, CompareCommand.self, StatsCommand.self, ConfigCommand.self, MergekitCommand.self,
            DemoCommand.self, BenchCommand.self, ManualCommand.self,
        ])

    /// Runs the command given by the arguments and exits with its exit code.
    static func main() async {
        // Broken pipes and file size limits should fail the write, not kill the process.
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        LinearAlgebra.prepare()
        let name = CommandLine.arguments.first.map { FilePath.components(of: $0).last }
        let root: any ParsableCommand.Type = name == MergekitCommand.commandName ? MergekitCommand.self : Self.self
        ProgressStyle.begin(Array(CommandLine.arguments.dropFirst()))
        do {
            try checkName(root)
            var command = try parse(root)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            // What was printed may not have been written yet: the disk may be full.
            guard fflush(nil) == 0 else {
                throw errno == EPIPE ? ReaderGone() : TesseraError.system(errno, "write", "stdout")
            }
            exit(0)
        } catch is ReaderGone {
            exit(ReaderGone.exitCode)
        } catch let problems as Problems {
            Terminal.complain(problems.all)
            exit(problems.exitCode)
        } catch let error as TesseraError {
            Terminal.complain([error])
            exit(error.code.exitCode)
        } catch is CancellationError {
            exit(TesseraError.Code.cancelled.exitCode)
        } catch {
            let code = root.exitCode(for: error).rawValue
            // Help is no error, and a bare exit code has been explained.
            guard code != 0, !(error is ExitCode) else {
                Terminal.end(exitCode: code)
                root.exit(withError: error)
            }
            Terminal.complain(
                about: TesseraError(.usage, root.message(for: error)),
                usage: root.fullMessage(for: error, columns: Terminal.width))
            exit(code)
        }
    }

    private static func exit(_ code: Int32) -> Never {
        let code = code == TesseraError.Code.cancelled.exitCode ? Interruption.exitCode ?? code : code
        Terminal.end(exitCode: code)
        Glibc.exit(code)
    }

    /// - Throws: `usage` for a first word that is no command.
    private static func checkName(_ root: any ParsableCommand.Type) throws(TesseraError) {
        let names = configuration.subcommands.compactMap { $0.configuration.commandName } + ["help"]
        var words = CommandLine.arguments.dropFirst()
        // The parser shows the program's own help for a command that it does not know.
        if words.first == "help", words.count > 1 { words = words.dropFirst() }
        guard root is Self.Type, let word = words.first, !word.hasPrefix("-"), !names.contains(word) else { return }
        throw TesseraError(
            .usage, "unknown command '\(word)'",
            advice: Suggestion.guess(for: word, in: names) ?? "'tessera help' lists the commands")
    }

    /// The command that the arguments, the environment and the configuration file ask for.
    private static func parse(_ root: any ParsableCommand.Type) throws -> any ParsableCommand {
        let arguments = Array(CommandLine.arguments.dropFirst()), environment = ProcessInfo.processInfo.environment
        guard Settings.mayApply(arguments: arguments, environment: environment) else { return try root.parseAsRoot() }
        let settings = try Settings(
            of: Self.self, link: root is Self.Type ? nil : MergekitCommand.commandName, arguments: arguments,
            environment: environment)
        let words = settings.arguments(), isAboutSettings = words.first == ConfigCommand.configuration.commandName
        ProgressStyle.begin(words)
        if !isAboutSettings { Terminal.warn(settings.strayVariables.filter { $0.advice != nil }) }
        let parsed = Result { try root.parseAsRoot(words) }
        // Help is no error.
        if case .failure(let error) = parsed, root.exitCode(for: error).isSuccess { throw error }
        // The user typed nothing wrong: say where the values are.
        let problems = isAboutSettings ? [] : settings.problems { root.complaint(about: $0) }
        guard problems.isEmpty else { throw Problems(problems) }
        return try parsed.get()
    }
}

extension ParsableCommand {
    /// What is wrong with the arguments; `nil` where nothing is.
    static func complaint(about arguments: [String]) -> String? {
        do {
            _ = try parseAsRoot(arguments)
            return nil
        } catch {
            return message(for: error)
        }
    }
}
