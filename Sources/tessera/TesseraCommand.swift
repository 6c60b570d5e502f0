import ArgumentParser
import Core
import Demo
import Engine
import Glibc
import LinearAlgebra
import TesseraCLI

@main
struct TesseraCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tessera",
        abstract: "Merge large model checkpoints, on one machine or many.",
        discussion: """
            'tessera run recipe.yml OUT' merges on this machine. To use several machines, start a coordinator and workers, then \
            submit the recipe. 'tessera demo' shows everything in a few seconds.
            """,
        version: tesseraVersion,
        subcommands: [
            RunCommand.self, PlanCommand.self, MethodsCommand.self, CoordinatorCommand.self, WorkerCommand.self,
            SubmitCommand.self, WaitCommand.self, StatusCommand.self, CancelCommand.self, VerifyCommand.self,
            InspectCommand.self, CompareCommand.self, StatsCommand.self, MergekitCommand.self, DemoCommand.self,
            BenchCommand.self,
        ])

    /// Runs the command given by the arguments and exits with its exit code.
    static func main() async {
        // Broken pipes and file size limits should fail the write, not kill the process.
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        LinearAlgebra.prepare()
        let name = CommandLine.arguments.first.map { FilePath.components(of: $0).last }
        let root: any ParsableCommand.Type = name == MergekitCommand.commandName ? MergekitCommand.self : Self.self
        do {
            var command = try root.parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let problems as Problems {
            Terminal.complain(problems.all)
            Glibc.exit(problems.exitCode)
        } catch let error as TesseraError {
            Terminal.complain([error])
            Glibc.exit(error.code.exitCode)
        } catch is CancellationError {
            Glibc.exit(TesseraError.Code.cancelled.exitCode)
        } catch {
            root.exit(withError: error)
        }
    }
}
