{{/* What `extra*` values add to the pod and what is there already: an API server refuses what has a name twice. */}}

{{/* Every problem, as a JSON array. */}}
{{- define "dstack-admission.podProblems" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- $pod := include "dstack-admission.pod" . | fromYaml -}}
{{- $volumes := list -}}
{{- range default list $pod.volumes -}}
{{- if has .name $volumes -}}
{{- $problems = append $problems (printf "extraVolumes: the pod has a volume %s already" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- /* A mount there would hide what the server needs, and nothing would be reviewed. */ -}}
{{- $forServer := dict "/root/.dstack/server/config.yml/" "server.config and server.existingConfigSecret" "/var/lib/dstack-admission/trust" "certificates" "/run/dstack-admission/netrc/" "auth" -}}
{{- $containers := list -}}
{{- range concat (default list $pod.initContainers) (default list $pod.containers) -}}
{{- $value := get (dict "dstack-server" "server.extraVolumeMounts" "dstack-admission" "admission.extraVolumeMounts") .name | default (printf "extraContainers, extraInitContainers: %s" .name) -}}
{{- if has .name $containers -}}
{{- $problems = append $problems (printf "extraContainers, extraInitContainers: the pod has a container %s already" .name) -}}
{{- end -}}
{{- $containers = append $containers .name -}}
{{- $paths := list -}}
{{- range default list .volumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- $problems = append $problems (printf "%s: the pod has no volume %s, see extraVolumes" $value .name) -}}
{{- end -}}
{{- $path := clean .mountPath -}}
{{- if has $path $paths -}}
{{- $problems = append $problems (printf "%s: there is a mount at %s already" $value .mountPath) -}}
{{- end -}}
{{- range $written, $instead := eq $value "server.extraVolumeMounts" | ternary $forServer dict -}}
{{- if hasPrefix $written (printf "%s/" $path) -}}
{{- $problems = append $problems (printf "%s: %s is where the chart writes for the server; see %s instead" $value $path $instead) -}}
{{- end -}}
{{- end -}}
{{- $paths = append $paths $path -}}
{{- end -}}
{{- end -}}
{{- range $key, $variables := dict "admission" $v.admission.extraEnv "server" $v.server.extraEnv -}}
{{- $names := list -}}
{{- range default list $variables -}}
{{- if has .name $names -}}
{{- $problems = append $problems (printf "%s.extraEnv: %s is there twice" $key .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- uniq $problems | toJson -}}
{{- end -}}

{{/* A duration such as 1m30s in seconds, rounded up. */}}
{{- define "dstack-admission.seconds" -}}
{{- $units := dict "ns" 0.000000001 "us" 0.000001 "µs" 0.000001 "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9.]+[a-zµ]+" . -1 -}}
{{- $seconds = mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-zµ]+" .)) | addf $seconds -}}
{{- end -}}
{{- ceil $seconds -}}
{{- end -}}
